# SPDX-License-Identifier: Apache-2.0
"""`python -m control_plane` is `hawser-hub`."""

from control_plane.cli import main

if __name__ == "__main__":
    main()
