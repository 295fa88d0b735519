"""Celery on Redis: what wakes workers. Which work is due says the store.

celery_app  the application, the same for those who wake and those who are woken
waking      the `JobQueue` on top of it
"""
