"""Reports to the operator. ``daemon`` hands them in; ``broadcast`` never imports them."""
