"""How processes run: devices, child processes, a torchaudio that can be imported everywhere."""
