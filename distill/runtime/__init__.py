"""How this process runs: devices, and a torchaudio that can be imported everywhere."""
