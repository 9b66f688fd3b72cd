"""`python -m alignvlm`, for launchers that start modules."""

from alignvlm.cli import main

if __name__ == "__main__":
    main()
