"""Compares what clients were told with the service's log and its database. It shares no code with the service: hashes, signatures,
certificates and rows are read here by what RFC 6962, RFC 8032, C2SP and PROTOCOL.certkeys say.

The argument is a JSON file:
  log_key      the log's verifier key
  ca           the user CA's public key, as in an authorized_keys file
  entries      the log's entries, in order, as text
  checkpoint   the signed checkpoint over them
  kept         earlier signed checkpoints
  facts        one object for each thing that a client was told: key (its public key), id (of the request), and certificate (a line)
               or ended (true) when it was told that
  database     a copy of the SQLite database, or null

Prints what it compared; ends with 1 and a sentence when something is lost, doubled, unlogged or not as it was told.
"""
import base64, collections, hashlib, json, sqlite3, struct, sys

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def need(holds, what):
    if not holds:
        sys.exit("checker: " + what)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(s, p):
    q = (0, 1, 1, 0)
    while s > 0:
        if s & 1:
            q = add(q, p)
        p = add(p, p)
        s >>= 1
    return q


def point(raw):
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    need(y < P and (x * x - x2) % P == 0, "a key or signature is no point")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(public, text, signature):
    """RFC 8032, 5.1.7."""
    r, s = point(signature[:32]), int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % ORDER
    left, right = times(s, BASE), add(r, times(h, point(public)))
    return s < ORDER and (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


def root(leaves):
    """RFC 6962, 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + root(leaves[:half]) + root(leaves[half:])).digest()


def check_checkpoint(note, log_key, leaves):
    """The number of entries, if signature and root are right."""
    name, key_id, key = log_key.split("+", 2)
    public = base64.b64decode(key)[1:]
    text, signatures = note.split("\n\n")
    text += "\n"
    origin, size, hashed = text.splitlines()
    blobs = [base64.b64decode(line.split(" ")[2]) for line in signatures.splitlines() if line.split(" ")[1] == name]
    blobs = [blob[4:] for blob in blobs if blob[:4].hex() == key_id]
    need(blobs and is_signed(public, text.encode(), blobs[0]), "a checkpoint is not signed by the log key")
    need(origin == name and int(size) <= len(leaves), "a checkpoint covers more entries than there are: the log lost some")
    need(root(leaves[: int(size)]) == base64.b64decode(hashed), "a checkpoint's root is not that of the entries")
    return int(size)


class Blob:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, count):
        need(self.at + count <= len(self.raw), "a certificate is cut off")
        self.at += count
        return self.raw[self.at - count : self.at]

    def string(self):
        return self.take(struct.unpack(">I", self.take(4))[0])

    def number(self):
        return struct.unpack(">Q", self.take(8))[0]


def read_certificate(line):
    blob = Blob(base64.b64decode(line.split()[1]))
    need(blob.string() == b"ssh-ed25519-cert-v01@openssh.com", "another kind of certificate")
    blob.string()
    subject, serial = blob.string(), blob.number()
    need(blob.take(4) == b"\0\0\0\1", "not a user certificate")
    key_id, _principals = blob.string().decode(), blob.string()
    start, end = blob.number(), blob.number()
    for _ in range(3):
        blob.string()
    ca = Blob(blob.string())
    signed = blob.raw[: blob.at]
    signature = Blob(blob.string())
    need(blob.at == len(blob.raw), "bytes after a certificate")
    need(ca.string() == b"ssh-ed25519" and signature.string() == b"ssh-ed25519", "another kind of CA key")
    return subject, serial, key_id, start, end, ca.string(), signed, signature.string(), blob.raw


def public_of(line):
    blob = Blob(base64.b64decode(line.split()[1]))
    blob.string()
    return blob.string()


def fingerprint(line):
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).decode().rstrip("=")


def check_certificate(line, key, request, entries, ca):
    subject, serial, _key_id, start, end, by, signed, signature, raw = read_certificate(line)
    need(by == ca and is_signed(ca, signed, signature), f"the certificate of {request} is not signed by the CA")
    need(0 < serial < len(entries), f"serial {serial} of {request} is not in the log: unlogged")
    entry = entries[serial]
    need(entry["kind"] == "certificate_to_be_signed", f"entry {serial} is no certificate's: unlogged")
    need(base64.b64decode(entry["tbs"]) == signed and entry["request"] == request, f"entry {serial} holds other bytes")
    need(entry["window"] == {"start": start, "end": end} and subject == public_of(key), f"serial {serial}: window or key")
    return serial, hashlib.sha256(raw).hexdigest()


def check_facts(facts, entries, ca):
    of = collections.defaultdict(lambda: collections.defaultdict(list))
    for entry in entries:
        if entry.get("request"):
            of[entry["request"]][entry["kind"]].append(entry)
    request_of, line_of, checked = {}, {}, 0
    for fact in facts:
        key, request = fact["key"], fact["id"]
        need(request_of.setdefault(key, request) == request, f"one key got two requests, {request} and {request_of[key]}")
        asked = of[request]["asked"]
        need(len(asked) == 1, f"{request} was told, and the log has {len(asked)} entries that it was asked")
        need(asked[0]["key"] == fingerprint(key), f"{request} is logged with another key")
        if "certificate" in fact:
            seen = line_of.get(request) == fact["certificate"]
            need(line_of.setdefault(request, fact["certificate"]) == fact["certificate"], f"{request} got two certificates")
            if not seen:
                serial, digest = check_certificate(fact["certificate"], key, request, entries, ca)
                outcomes = [one["sha256"] for one in of[request]["certificate_signed"] if one["serial"] == serial]
                need(outcomes == [digest], f"serial {serial} was handed out, and its outcome is logged as {outcomes}")
                checked += 1
        if fact.get("ended"):
            need(len(of[request]["ended"]) == 1, f"{request} was ended, and the log says so {len(of[request]['ended'])} times")
    keys = collections.Counter(kinds["asked"][0]["key"] for kinds in of.values() if kinds["asked"])
    need(not keys or max(keys.values()) == 1, "a key was asked for twice: doubled")
    for request, kinds in of.items():
        for kind in ("asked", "certificate_to_be_signed", "certificate_signed", "ended"):
            need(len(kinds[kind]) <= 1, f"{request} has {len(kinds[kind])} entries of {kind}: doubled")
    return of, len(request_of), checked


def check_database(path, texts, of):
    database = sqlite3.connect(path)
    need(database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the database is damaged")
    rows = [row[0] for row in database.execute("SELECT bytes FROM log_entry ORDER BY number")]
    need(rows[: len(texts)] == [text.encode() for text in texts], "the database's entries are not those that were shown")
    known = {request for request, kinds in of.items() if kinds["asked"]}
    stored = {plain(row[0]) for row in database.execute("SELECT id FROM request")}
    later = {plain(json.loads(row).get("request") or "") for row in rows[len(texts) :]}
    need(stored - later == {plain(request) for request in known} - later, "requests in the database and in the log differ")
    intents = {json.loads(row)["index"] for row in rows if json.loads(row)["kind"] == "certificate_to_be_signed"}
    need({row[0] for row in database.execute("SELECT serial FROM certificate")} == intents, "certificates in the database and in the log differ")


def plain(request):
    return request.replace("-", "")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    texts = given["entries"]
    entries = [json.loads(text) for text in texts]
    need([entry["index"] for entry in entries] == list(range(len(entries))), "entries are missing or out of order")
    times_ = [entry["at"] for entry in entries]
    need(times_ == sorted(times_), "log time runs backwards")
    leaves = [hashlib.sha256(b"\0" + text.encode()).digest() for text in texts]
    need(check_checkpoint(given["checkpoint"], given["log_key"], leaves) == len(texts), "the checkpoint does not cover the log")
    for kept in given["kept"]:
        check_checkpoint(kept, given["log_key"], leaves)
    of, requests, certificates = check_facts(given["facts"], entries, public_of(given["ca"]))
    if given["database"]:
        check_database(given["database"], texts, of)
    print(f"{len(texts)} entries, {requests} requests and {certificates} certificates that clients were told of, {len(given['kept'])} kept checkpoints")


main()
