"""One HTML page that runs a network in a browser: compiler, stored answers, page, its runtime."""
