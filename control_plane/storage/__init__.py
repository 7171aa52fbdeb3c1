# SPDX-License-Identifier: Apache-2.0
"""Tables, migrations and the functions that read and write them."""
