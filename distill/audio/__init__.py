"""Sound files in and out, whoever wrote them; stems; what a codec speaks; spectrograms."""
