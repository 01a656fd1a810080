"""What a network costs on a board, by itself and beside other libraries."""
