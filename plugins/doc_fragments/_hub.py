# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of everything that may speak to the hub: modules, inventory, lookup."""

from __future__ import annotations


class ModuleDocFragment:
    """Addresses and credentials; `place` are the further options of the action group `machine`."""

    DOCUMENTATION = r"""
options:
  arm:
    description:
      - Address of the hub's ARM endpoint, an https URL.
      - If it is not set, E(HAWSER_ARM) of the controller counts, then the cloud profile where a module takes one.
    type: str
  authority:
    description:
      - Address of the hub's authority, an https URL without the tenant.
      - If it is not set, E(HAWSER_AUTHORITY) or E(AZURE_AUTHORITY_HOST) of the controller counts, then the cloud
        profile.
    type: str
  tenant_id:
    description:
      - The tenant, a GUID.
      - If it is not set, E(HAWSER_TENANT_ID), E(AZURE_TENANT_ID) or E(AZURE_TENANT) counts, then the cloud profile.
    type: str
  client_id:
    description:
      - Application id of the controller's service principal.
      - If it is not set, E(HAWSER_CLIENT_ID) or E(AZURE_CLIENT_ID) counts.
    type: str
  client_secret:
    description:
      - The service principal's secret. It never leaves the controller; hosts get tickets of ten minutes for themselves
        alone.
      - If neither it nor O(client_secret_file) is set, E(HAWSER_CLIENT_SECRET), E(AZURE_CLIENT_SECRET) or
        E(AZURE_SECRET) counts.
    type: str
  client_secret_file:
    description:
      - A file on the controller with the secret.
      - If it is not set, E(HAWSER_CLIENT_SECRET_FILE) counts.
    type: path
  access_token:
    description:
      - A token for ARM that was got elsewhere, in place of O(client_id) and a secret. It never leaves the controller.
      - If it is not set, E(HAWSER_ACCESS_TOKEN) counts.
    type: str
  ca_file:
    description:
      - A file on the controller with the hub's CA in PEM.
      - If it is not set, E(HAWSER_CA_FILE) counts, then the CA of the cloud profile, then the CAs of the system.
    type: path
"""

    PLACE = r"""
options:
  subscription_id:
    description:
      - The subscription, a GUID.
      - If it is not set, E(HAWSER_SUBSCRIPTION_ID) or E(AZURE_SUBSCRIPTION_ID) counts.
    type: str
  resource_group:
    description:
      - The resource group.
      - If it is not set, E(HAWSER_RESOURCE_GROUP) counts.
    type: str
  location:
    description:
      - The location, as the hub lists it.
      - If it is not set, E(HAWSER_LOCATION) counts.
    type: str
"""
