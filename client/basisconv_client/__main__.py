"""`python -m basisconv_client`: the command line."""

from basisconv_client.cli import main

if __name__ == "__main__":
    main()
