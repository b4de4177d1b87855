"""What people use a model through, and what they make data with."""
