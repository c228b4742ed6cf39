"""What is measured beside explanations, to know what a number is worth."""
