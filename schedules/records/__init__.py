"""What is tuned, the tiles that a kernel can have, and the records of which was best."""
