"""Version 1 of the HTTP API: JSON in and out, real status codes, every error as {"error": code, "message": ...}."""

from fastapi import APIRouter, Depends

from didact.web.api import accounts, admin, learnwares, search, uploads
from didact.web.api.schemas import errors
from didact.web.security import check_csrf_header, limit_requests

router = APIRouter(
    dependencies=[Depends(limit_requests), Depends(check_csrf_header)],
    responses=errors(400, 401, 403, 422, 429),
)
for part in (search, learnwares, uploads, accounts, admin):
    router.include_router(part.router)

__all__ = ["router"]
