"""The people of a dock: accounts, passwords, tokens, roles, and limits on how often they ask.

Of a token only the hash is kept, of a password only what Argon2 makes of it.
"""

from didact.reusing.dock.accounts.accounts import Accounts
from didact.reusing.dock.accounts.limits import RateLimit, RateLimited
from didact.reusing.dock.accounts.people import BadAccount, NewToken, Role, Token, User, require_admin

__all__ = [
    "Accounts", "BadAccount", "NewToken", "RateLimit", "RateLimited", "Role", "Token", "User", "require_admin",
]  # fmt: skip
