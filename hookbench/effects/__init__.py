"""The effect store: what handlers did to the world, apart from what workers say they did."""
