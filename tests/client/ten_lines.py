from fulcrum.client import Client, Scale

client = Client()  # where `fulcrum up` runs
why = client.explain("photo.png", ["dog", "cat", "car"])  # uploads, predicts, attributes
print(why.prediction.top, why.prediction.margin)
for found in why.latents[:3]:
    print(found.latent, found.score, found.measured_effect)
tried = client.steer(why, Scale(why.latents[0].latent, 0.0))  # the same image without that latent
print(tried.before.top, "->", tried.after.top)
saved = client.save_correction("without that latent", tried)
print(saved.name, client.corrections.version(saved).sha256)
