"""What is read and written whatever it is for: files, sheets of pictures, the terminal, the person's mistakes."""
