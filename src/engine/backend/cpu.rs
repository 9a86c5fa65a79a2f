//! The model on this machine's cores, in f32.
