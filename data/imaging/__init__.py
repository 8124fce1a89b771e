"""From one image file to pixels, or to a reason why there are none."""
