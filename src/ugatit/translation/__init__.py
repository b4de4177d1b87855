"""What is done with a trained model: pictures, folders, videos, other formats."""
