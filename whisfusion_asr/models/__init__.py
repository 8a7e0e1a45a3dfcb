"""The network: encoders, CTC head with its position ruler, diffusion decoder with adapters. Plain torch."""
