from tests.gateway.resources.conftest import TASK


def test_explain_answers_with_attribution_and_keeps_it(lab):
    answer = lab.ask("explain", n_latents=5)
    print(answer)
    lab.ask("steer", edits=[{"kind": "scale", "latent": 3, "gain": 0.0}])
    print(lab.stream("sweep", latents=[3], gains=[0.0, 1.0, 2.0]))
