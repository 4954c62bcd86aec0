"""Images, masks and regions: decoded safely, drawn, and turned into what the two encoders see."""
