"""The one exception whose message is for the person at the keyboard."""


class UserError(Exception):
    """Bad input: one sentence that names the file or option, what is wrong and what to do. Exit code 2."""
