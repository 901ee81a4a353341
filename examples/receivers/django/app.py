"""A receiver with Django, in one file. Start it in this folder; STORE is the events' folder:

    python3 -m venv venv && venv/bin/pip install Django==5.2.19 gunicorn==27.0.1
    PYTHONPATH=.. STORE=/folder venv/bin/gunicorn --threads 4 --bind 0.0.0.0:9528 app:application
"""
import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from store import LIMIT, is_signed, keep

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATA_UPLOAD_MAX_MEMORY_SIZE=LIMIT,  # the default is 2.5 MiB: a larger request gets 400
)


@csrf_exempt
@require_POST
def real_time_event(request):
    if not is_signed(request.headers.get("X-Signature"), request.body):
        return JsonResponse({"error": "the signature is missing, wrong or old"}, status=401)
    try:
        event = json.loads(request.body) if request.content_type == "application/json" else request.POST.dict()
        return JsonResponse(keep(request.headers.get("X-Event-Id"), event))
    except (KeyError, TypeError, ValueError) as fault:
        return JsonResponse({"error": f"not an event: {fault!r}"}, status=400)


urlpatterns = [path("RealTimeEvent", real_time_event)]
application = get_wsgi_application()
