"""The OpenAI wire: what requests may hold, and how answers and errors look."""
