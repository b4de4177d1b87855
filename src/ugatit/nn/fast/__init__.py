"""The functions of `ugatit.nn`, faster or in less memory."""
