import sys

from rootfsbuild.cli import main

if __name__ == "__main__":
    sys.exit(main())
