"""A developer of the SMS API with libraries that nobody here wrote: requests-oauthlib and authlib get the tokens, openapi-spec-validator reads
the description, and every answer is checked against it and against CAMARA's own drafts.

developer.py BASE CA DRAFTS CLIENT SECRET HOOK KEYFILE NUMBER OTHER; the last line is "checked N answers".
"""
import json, sys, time

import requests, yaml
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate
from requests_oauthlib import OAuth2Session

base, ca, drafts, client_id, secret, hook, keyfile, number, other = sys.argv[1:]
checked = 0

document = requests.get(base + "/openapi.json", verify=ca).json()
validate(document)
drafts = {name: yaml.safe_load(open(f"{drafts}/{name}.yaml")) for name in ("SMS", "sms-delivery-notification-subscription")}


def fits(whole, schema, value):
    global checked
    OAS30Validator({**schema, "components": whole["components"]}).validate(value)
    checked += 1


def draft(name, schema, value):
    fits(drafts[name], {"$ref": f"#/components/schemas/{schema}"}, value)


def call(session, method, template, status, body=None, headers=None, **path):
    """One request; its answer must be one that the description has for the operation."""
    answer = session.request(method, base + template.format(**path), json=body, headers={"x-correlator": "c-1", **(headers or {})}, verify=ca)
    assert answer.status_code == status, (method, template, answer.status_code, answer.text)
    assert answer.headers["x-correlator"] == "c-1"
    described = document["paths"][template][method.lower()]["responses"][str(status)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rsplit("/", 1)[1]]
    if "content" in described:
        fits(document, described["content"]["application/json"]["schema"], answer.json())
        return answer, answer.json()
    assert answer.content == b"", answer.text
    return answer, None


# client_secret_basic by one library, client_secret_post by another.
session = OAuth2Session(client=BackendApplicationClient(client_id=client_id))
token = session.fetch_token(base + "/oauth2/token", client_id=client_id, client_secret=secret, verify=ca)
fits(document, {"$ref": "#/components/schemas/AccessToken"}, dict(token, scope=" ".join(token["scope"])))
narrow = AuthlibSession(client_id, secret, scope="read-sms:short-message", token_endpoint_auth_method="client_secret_post")
narrow.verify = ca
assert narrow.fetch_token(base + "/oauth2/token", grant_type="client_credentials")["scope"] == "read-sms:short-message"

subscriptions = "/sms-delivery-notification-subscriptions/v0alpha1/subscriptions"
detail = {"type": "org.camaraproject.sms.v0.sms-delivery-status"}
wanted = {"subscriptionDetail": detail, "webhook": {"notificationUrl": hook, "notificationAuthToken": "tok-1"}}
_, made = call(session, "POST", subscriptions, 201, wanted)
open(keyfile, "w").write(made["webhook"]["secret"])
one = subscriptions + "/{subscriptionId}"
_, shown = call(session, "GET", one, 200, subscriptionId=made["subscriptionId"])
assert "secret" not in shown["webhook"] and "notificationAuthToken" not in shown["webhook"], shown
assert call(session, "GET", subscriptions, 200)[1] == [shown]

# The draft exactly, and then what it lacks.
_, sent = call(session, "POST", "/sms/v0alpha1/short-message", 200, {"to": [number], "from": "Fleet", "category": "PROMOTION", "message": "By the draft"})
draft("SMS", "MessageResponse", sent)
key = {"Idempotency-Key": "order 17"}
body = {"to": [number, other], "message": "a" * 200, "validity": 60}
answer, sent = call(session, "POST", "/sms/v1/messages", 201, body, key)
assert [r["segments"] for r in sent["recipients"]] == [2, 2] and answer.headers["location"] == "/sms/v1/messages/" + sent["msgId"]
assert call(session, "POST", "/sms/v1/messages", 201, body, key)[1] == sent
_, error = call(session, "POST", "/sms/v1/messages", 422, dict(body, message="b"), key)
draft("SMS", "ErrorInfo", error)
draft("sms-delivery-notification-subscription", "ErrorInfo", error)

message = "/sms/v1/messages/{msgId}"
for _ in range(600):
    _, status = call(narrow, "GET", message, 200, msgId=sent["msgId"])
    if all(r["status"] == "DELIVERED" and r["delivered"] == 2 for r in status["recipients"]):
        break
    time.sleep(0.1)
else:
    raise SystemExit(f"not delivered: {status}")
assert status["from"] == "Fleet", status
call(narrow, "DELETE", message, 403, msgId=sent["msgId"])
call(session, "DELETE", message, 409, msgId=sent["msgId"])
call(session, "GET", message, 404, msgId="00000000-0000-4000-8000-000000000000")
call(session, "POST", "/sms/v1/messages", 400, {"to": [number], "mesage": "x"})
call(session, "POST", "/sms/v1/messages", 403, {"to": ["+491701234567"], "message": "x"})
call(session, "POST", "/sms/v1/messages", 403, {"to": [number], "from": "Bank", "message": "x"})
call(requests.Session(), "POST", "/sms/v1/messages", 401, {"to": [number], "message": "x"})

# A second subscription that is for one event.
_, brief = call(session, "POST", subscriptions, 201, {**wanted, "subscriptionDetail": {**detail, "senderId": "5555"}, "subscriptionMaxEvents": 1})
draft("sms-delivery-notification-subscription", "SubscriptionInfo", brief)
open(keyfile, "a").write("\n" + brief["webhook"]["secret"])
binary = {"userData": "00ff", "destinationPort": 2948, "sourcePort": 9200}
call(session, "POST", "/sms/v1/messages", 201, {"to": [number], "from": "5555", "binary": binary})
for _ in range(600):
    if len(call(session, "GET", subscriptions, 200)[1]) == 1:
        break
    time.sleep(0.1)
else:
    raise SystemExit("the subscription for one event is still there")
call(session, "POST", subscriptions, 400, {**wanted, "webhook": {"notificationUrl": "https://10.0.0.1/"}})
call(session, "DELETE", one, 404, subscriptionId=brief["subscriptionId"])
print(f"checked {checked} answers")
