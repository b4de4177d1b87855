"""From picture files to the tensors that training takes."""
