import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While the program is still being loaded, a key ends it as it ends any other, not with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from rootfsbuild.cli import main

    sys.exit(main())
