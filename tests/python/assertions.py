"""A client that proves itself by private_key_jwt, with authlib; its keys are served from here. Says how each attempt was answered.

assertions.py BASE CA AUDIENCE JWKS_PORT CLIENT OTHER
"""
import http.server, json, sys, threading, time

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

base, ca, audience, port, client_id, other = sys.argv[1:]
keys = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "PS256": RSAKey.generate_key(2048, {"kid": "pss"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
stranger = ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256"})
served, asked = dict(keys), []


class Jwks(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        body = json.dumps({"keys": [key.as_dict(private=False) for key in served.values()]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Jwks)
threading.Thread(target=server.serve_forever, daemon=True).start()


def made(alg="ES256", key=None, header=None, **claims):
    now = int(time.time())
    whole = {"iss": client_id, "sub": client_id, "aud": audience, "exp": now + 60, "iat": now, "jti": f"j-{time.time_ns()}", **claims}
    key = key or keys[alg]
    return jwt.encode({"alg": alg, "kid": key.kid, **(header or {})}, {k: v for k, v in whole.items() if v is not None}, key,
                      algorithms=["RS256", "PS256", "ES256", "EdDSA", "HS256", "none"])


def ask(assertion, **more):
    form = {"grant_type": "client_credentials", "client_assertion": assertion,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", **more}
    answer = requests.post(base + "/oauth2/token", data=form, verify=ca)
    return answer.status_code, answer.json().get("error")


# By the library's own way, start to end.
session = OAuth2Session(client_id, keys["RS256"], token_endpoint_auth_method="private_key_jwt")
session.register_client_auth_method(PrivateKeyJWT(audience))
session.verify = ca
token = session.fetch_token(base + "/oauth2/token", grant_type="client_credentials")
assert token["token_type"] == "Bearer" and token["scope"] == "send-sms:short-message", token

granted, refused = (200, None), (401, "invalid_client")
for alg in keys:
    assert ask(made(alg)) == granted, alg
assert ask(made(aud=["https://elsewhere.example", audience])) == granted
assert ask(made(), client_id=client_id) == granted
once = made()
assert ask(once) == granted and ask(once) == refused, "used twice"
for wrong in [
    made(key=stranger), made(aud="https://elsewhere.example"), made(exp=int(time.time()) - 1), made(exp=int(time.time()) + 86_400),
    made(nbf=int(time.time()) + 600), made(iss="somebody"), made(iss="somebody", sub="somebody"), made(jti=None), made(exp=None),
    made(iss=other, sub=other), made(header={"kid": "unknown"}), made()[:-6] + "AAAAAA", "a.b.c", "x",
    # What is public must not do as a shared secret.
    made("HS256", OctKey.import_key(json.dumps(keys["ES256"].as_dict(private=False)).encode(), {"kid": "ec"})),
]:
    assert ask(wrong) == refused, wrong
assert ask(made(), client_id="somebody") == refused
assert ask(made(), client_secret="s") == (400, "invalid_request")
assert ask(made(), client_assertion_type="urn:x") == (400, "invalid_request")
# Keys are asked for now and then, not for each; a forger cannot change that.
assert len(asked) <= 2, asked
print("all as it must be")
