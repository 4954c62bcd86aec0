"""`python -m theworld` is the `theworld` command."""

from theworld.cli import main

if __name__ == "__main__":
    main()
