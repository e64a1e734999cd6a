"""Calls for operations whose call no rule can write: files, streams, waiting, tus."""

VARIABLES = {
    "model_id": "$MODEL",
    "dataset_id": "$DATA",
    "plan_id": "$PLAN",
    "job_id": "$JOB",
    "artifact_id": "$FILE",
    "batch_id": "$BATCH",
    "key_id": "$KEY_ID",
    "webhook_id": "$HOOK",
    "upload_id": "$UPLOAD",
}
_TUS = "-H 'Tus-Resumable: 1.0.0'"
_JSON = "-H 'Content-Type: application/json'"
_BODY = """{
  "model": "'$MODEL'", "dataset": "'$DATA'", "compression": {"target": {"macs": 0.5}}}"""
_JOB = _BODY.replace("}}}", '}}, "exports": ["onnx"]}')

CALLS = {
    "POST /v1/models": """
api $URL/models -F file=@examples/digits_cnn.onnx -F name=digits \\
  -F 'input={"mean": [0.3054], "std": [0.376]}'
""",
    "DELETE /v1/models/{model_id}": "api -X DELETE $URL/models/$MODEL",
    "POST /v1/datasets": "api $URL/datasets -F file=@examples/digits.npz -F name=digits",
    "OPTIONS /v1/uploads": "api -X OPTIONS -i $URL/uploads",
    "POST /v1/uploads": f"""
# the first 100,000 bytes of a file; what it becomes is said by `kind`
SIZE=$(stat -c %s examples/digits.npz)
UPLOAD=$(head -c 100000 examples/digits.npz | api $URL/uploads {_TUS} -H "Upload-Length: $SIZE" \\
  -H "Upload-Metadata: filename $(echo -n digits.npz | base64),kind $(echo -n dataset | base64)" \\
  -H 'Content-Type: application/offset+octet-stream' --data-binary @- -D - -o answer.json \\
  | tr -d '\\r' | sed -n 's|^[Ll]ocation: .*/||p')
""",
    "HEAD /v1/uploads/{upload_id}": f"api --head $URL/uploads/$UPLOAD {_TUS}",
    "PATCH /v1/uploads/{upload_id}": f"""
tail -c +100001 examples/digits.npz | api -X PATCH $URL/uploads/$UPLOAD {_TUS} \\
  -H 'Upload-Offset: 100000' -H 'Content-Type: application/offset+octet-stream' --data-binary @-
""",
    "POST /v1/uploads/{upload_id}": f"""
# for proxies that let no PATCH through; here the override is a second, empty upload's end
OTHER=$(api -X POST $URL/uploads {_TUS} -H 'Upload-Length: 10' -D - -o answer.json \\
  | tr -d '\\r' | sed -n 's|^[Ll]ocation: .*/||p')
api -X POST $URL/uploads/$OTHER {_TUS} -H 'X-HTTP-Method-Override: DELETE'
""",
    "DELETE /v1/uploads/{upload_id}": f"api -X DELETE $URL/uploads/$UPLOAD {_TUS}",
    "POST /v1/plans": f"""
PLAN=$(api $URL/plans {_JSON} -d '{_BODY}' | jq -r .id)
""",
    "GET /v1/plans/{plan_id}": """
while [ "$(api $URL/plans/$PLAN | jq -r .status)" = queued ]; do sleep 0.5; done
api $URL/plans/$PLAN | jq '{feasible, predicted, ranks}'
""",
    "POST /v1/jobs": f"""
JOB=$(api $URL/jobs {_JSON} -H "Idempotency-Key: first-$MODEL" -d '{_JOB}' | jq -r .id)
""",
    "POST /v1/jobs/{job_id}/cancel": f"""
WAITING=$(api $URL/jobs {_JSON} -d '{_BODY}' | jq -r .id)
api -X POST $URL/jobs/$WAITING/cancel | jq .status
""",
    "GET /v1/jobs/{job_id}/events": """
# live, until the job has ended; after a broken line send `Last-Event-ID`
api -N -H 'Accept: text/event-stream' $URL/jobs/$JOB/events
# the same as pages
api "$URL/jobs/$JOB/events?limit=5" | jq -r '.data[] | [.seq, .type, .message] | @tsv'
""",
    "GET /v1/jobs": "api \"$URL/jobs?status=running&limit=5\" | jq '.data[].id'",
    "GET /v1/jobs/{job_id}/artifacts": """
FILE=$(api $URL/jobs/$JOB/artifacts | jq -r '.data[] | select(.format == "onnx") | .id')
""",
    "GET /v1/jobs/{job_id}/report": "api $URL/jobs/$JOB/report -o report.html",
    "DELETE /v1/jobs/{job_id}": """
for job in $JOB $WAITING; do api -X DELETE $URL/jobs/$job; done
""",
    "GET /v1/artifacts/{artifact_id}/content": """
api $URL/artifacts/$FILE/content -o small.onnx
# a part of it, and the rest of a download that was cut
api $URL/artifacts/$FILE/content -r 0-999 -o part.onnx
api $URL/artifacts/$FILE/content -C - -o part.onnx && cmp small.onnx part.onnx
""",
    "POST /v1/batches": f"""
BATCH=$(api $URL/batches {_JSON} -d '{{
  "models": ["'$MODEL'"], "grid": {{"compression.target.macs": [0.3, 0.5, 0.7]}},
  "base": {{"dataset": "'$DATA'"}}}}' | jq -r .id)
""",
    "GET /v1/batches/{batch_id}/results": """
while [ "$(api $URL/batches/$BATCH | jq -r .status)" = cancelling ]; do sleep 0.5; done
api $URL/batches/$BATCH/results | jq -c '[.line, .status, .result.compressed.macs]'
""",
    "POST /v1/webhooks": f"""
HOOK=$(api $URL/webhooks {_JSON} -d '{{
  "url": "https://example.com/hooks/basisconv", "events": ["job.succeeded", "job.failed"]}}' | jq -r .id)
""",
    "POST /v1/keys": f"""
KEY_ID=$(api $URL/keys {_JSON} -d '{{"name": "Ada", "scopes": ["read"]}}' | jq -r .id)
""",
    "GET /livez": "curl -sS http://127.0.0.1:8000/livez",
    "GET /readyz": "curl -sS http://127.0.0.1:8000/readyz",
    "GET /metrics": "api http://127.0.0.1:8000/metrics | grep -c ^basisconv",
}
