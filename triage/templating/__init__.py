"""Own templates of messages, in Jinja2, that can neither take long, nor grow without bounds, nor look inside. Pure."""
