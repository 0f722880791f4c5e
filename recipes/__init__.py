"""How the bundled models are made: synthetic tickets, tokenizer, training, GGUF writing, evaluation. Not installed."""
