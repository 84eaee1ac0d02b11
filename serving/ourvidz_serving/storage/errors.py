"""What can go wrong in object storage.

StoreError
├── ObjectNotFound       no such object, or no such bucket
├── ObjectExists         asked to write only if absent, and it is there
├── InvalidKey           a bucket name or key that is not allowed
├── AccessDenied         the store refuses us: wrong credentials, or no right to do this
├── StoreMisconfigured   the store can't work as it is set up; trying again won't help
├── StoreUnavailable     out of reach, too slow, failing or full; worth trying again later
├── SignatureInvalid     a signed URL that we did not make, or made for another object
└── SignatureExpired     a signed URL whose time has passed
"""


class StoreError(Exception):
    """The root of all that an object store raises."""


class ObjectNotFound(StoreError):
    """There is no such object, or no such bucket."""


class ObjectExists(StoreError):
    """The object was to be written only if absent, and it is there."""


class InvalidKey(StoreError):
    """The bucket name or the key is not allowed; no store was asked."""


class AccessDenied(StoreError):
    """The store refuses us: wrong credentials, or no right to do this."""


class StoreMisconfigured(StoreError):
    """The store can't work as it is set up; trying again won't help."""


class StoreUnavailable(StoreError):
    """The store is out of reach, too slow, failing or full; worth trying again later."""


class SignatureInvalid(StoreError):
    """The signed URL was not made by us, was changed, or was made for another object."""


class SignatureExpired(StoreError):
    """The signed URL was ours, and its time has passed."""
