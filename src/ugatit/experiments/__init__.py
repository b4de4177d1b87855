"""Several runs trained and measured alike: Tables 1 and 3."""
