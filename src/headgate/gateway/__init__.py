"""The HTTP face: the OpenAI wire, access, streams, metrics and the admin API. Carries nothing itself: see serving."""
