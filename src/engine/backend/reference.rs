//! candle-transformers' Llama behind the trait: the oracle.
