"""From the lake to where lists are served."""
