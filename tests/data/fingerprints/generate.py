"""Writes corpus.jsonl: failures with the cause they have, for measuring the fingerprint. `python generate.py`.

A class is one cause, as somebody on call would file it: one thing to look at, one thing to mend. Its members differ in
what differs between two failures with that cause. The texts are those of the platform and of runtimes, drivers and
libraries, from their documentation and sources; names, addresses and numbers are made up. Classes whose names share
what stands before the last slash are hard negatives: they look alike and are not the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

R = random.Random(20260301)
MEMBERS = 6


def pick(*options: str) -> str:
    return R.choice(options)


def hexes(count: int) -> str:
    return "".join(R.choices("0123456789abcdef", k=count))


def base36(count: int) -> str:
    return "".join(R.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=count))


def base64ish(count: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return "".join(R.choices(letters, k=count)) + "=="


SLOTS: dict[str, Callable[[], str]] = {
    "n": lambda: str(R.choice([R.randint(0, 9), R.randint(10, 999), R.randint(1000, 9_999_999)])),
    "s": lambda: str(R.choice([1, 3, 10, 30, 60, 600, 86400])),
    "ms": lambda: pick(f"{R.randint(1, 900)}ms", f"{R.random() * 90:.2f}s", f"{R.randint(1, 90)}s", "1m30s"),
    "mb": lambda: pick(f"{R.randint(8, 3072)}MB", f"{R.random() * 500:.2f}MB", "1.5GB"),
    "fc": lambda: f"1-{hexes(8)}-{hexes(8)}-{hexes(12)}",
    "uuid": lambda: f"{hexes(8)}-{hexes(4)}-4{hexes(3)}-a{hexes(3)}-{hexes(12)}",
    "upper": lambda: hexes(24).upper(),
    "hex": lambda: hexes(R.choice([8, 16, 40])),
    "ptr": lambda: f"0x{hexes(12)}",
    "order": lambda: f"ORD-{R.randint(1, 10**6)}",
    "user": lambda: pick("alice", "bob", "carol", "dave_7", "erin.k", "user-1042"),
    "mail": lambda: f"{pick('alice', 'bob.k', 'c_1')}@{pick('example.com', 'mail.example.org')}",
    "ip": lambda: f"10.{R.randint(0, 255)}.{R.randint(0, 255)}.{R.randint(1, 254)}",
    "ip6": lambda: pick("::1", f"fe80::{hexes(4)}:{hexes(3)}", f"2001:db8:{hexes(4)}::{hexes(2)}"),
    "port": lambda: str(R.randint(1024, 65535)),
    "file": lambda: f"/tmp/{base36(8)}/{pick('in', 'out', 'part')}-{R.randint(1, 99)}.{pick('csv', 'json', 'jpg')}",
    "win": lambda: f"C:\\Temp\\{base36(6)}\\{pick('a', 'b')}{R.randint(1, 9)}.txt",
    "url": lambda: f"https://{pick('api', 'shop')}.example.com/v1/orders/{R.randint(1, 9999)}?t={hexes(6)}",
    "iso": lambda: (
        f"2026-0{R.randint(1, 9)}-1{R.randint(0, 9)}T0{R.randint(0, 9)}:{R.randint(10, 59)}:12.{R.randint(100, 999)}Z"
    ),
    "stamp": lambda: (
        f"2026-0{R.randint(1, 9)}-1{R.randint(0, 9)} 0{R.randint(0, 9)}:{R.randint(10, 59)}:12,{R.randint(100, 999)}"
    ),
    "rfc": lambda: (
        f"{pick('Mon', 'Tue', 'Sat')}, {R.randint(10, 28)} {pick('Jan', 'May', 'Oct')} 2026 0{R.randint(1, 9)}:12:57 GMT"
    ),
    "clock": lambda: f"{R.randint(10, 23)}:{R.randint(10, 59)}:{R.randint(10, 59)}",
    "b64": lambda: base64ish(R.choice([40, 86])),
    "pod": lambda: f"{hexes(9)}1-{base36(4)}7",
    "arn": lambda: (
        f"acs:fc:cn-hangzhou:{R.randint(10**9, 10**10)}:functions/{pick('resize', 'bill')}-{R.randint(1, 9)}"
    ),
    "word": lambda: pick("north", "south", "east", "west", "central"),
    "title": lambda: pick("Invoice 12", "a b", "x", "Müller & Söhne", "报表 3", "it works"),
    "line": lambda: str(R.randint(2, 400)),
}


class Slots(dict):
    def __missing__(self, name: str) -> str:
        return SLOTS[name.rstrip("_")]()


def fill(template: str) -> str:
    """``{{`` and ``}}`` are braces; a slot's name may end in ``_`` where one text has two of a kind."""
    return template.format_map(Slots())


def python(type_: str, message: str, *, where: str = "handler", file: str = "/code/index.py") -> dict:
    return {
        "errorMessage": message,
        "errorType": type_,
        "stackTrace": [
            [
                'File "/var/fc/runtime/python3.10/bootstrap.py"',
                f"line {R.randint(20, 400)}",
                "in run",
                "handler(event)",
            ],
            [f'File "{file}"', f"line {R.randint(2, 400)}", f"in {where}", "return work(event)"],
        ],
    }


def node(type_: str, message: str, *, where: str = "exports.handler") -> dict:
    return {
        "errorMessage": message,
        "errorType": type_,
        "stackTrace": [
            f"{type_}: {message}",
            f"    at {where} (/code/index.js:{R.randint(2, 400)}:{R.randint(2, 60)})",
            f"    at Runtime.handle (/var/fc/runtime/nodejs16/bootstrap.js:{R.randint(2, 400)}:{R.randint(2, 60)})",
        ],
    }


def java(type_: str, message: str, *, where: str = "com.example.App.handleRequest") -> dict:
    return {
        "errorMessage": message,
        "errorType": type_,
        "stackTrace": [
            f"{where}(App.java:{R.randint(9, 400)})",
            f"aliyun.serverless.Runtime.run(Runtime.java:{R.randint(9, 99)})",
        ],
    }


def go(type_: str, message: str, *, where: str = "main.HandleRequest") -> dict:
    return {
        "errorMessage": message,
        "errorType": type_,
        "stackTrace": [{"path": "code/main.go", "line": R.randint(9, 400), "label": where}],
    }


def php(type_: str, message: str, *, where: str = "/code/index.php") -> dict:
    return {"errorMessage": message, "errorType": type_, "stackTrace": {"file": where, "line": R.randint(3, 400)}}


def dotnet(type_: str, message: str, *, where: str = "Example.App.Handle(Stream input)") -> dict:
    return {
        "errorMessage": message,
        "errorType": type_,
        "stackTrace": [f"   at {where} in /src/App.cs:line {R.randint(3, 400)}"],
    }


def platform(_type: str, message: str) -> dict:
    return {"errorMessage": message}


def text(_type: str, message: str) -> str:
    return message


Class = tuple[str, Callable[..., object], str, list[str]]

# One line is one class: its name, who reports it, the error's type, and the forms its message has.
CLASSES: list[Class] = [
    ("platform/timeout", platform, "", ["Function timed out after {s} seconds (maxMemoryUsage: {mb})", "Function timed out after 1 second (maxMemoryUsage: {mb})"]),
    ("platform/exit", platform, "", ["Process exited unexpectedly before completing request (duration: {ms}, maxMemoryUsage: {mb})"]),
    ("platform/memory", platform, "", ["Function oom, max memory usage: {mb}", "Function oom, max memory usage: {n} MB"]),
    ("custom/exit 1", platform, "", ["Function instance exited unexpectedly(code 1, message:exit status 1) with start command './bootstrap'.\nLogs:{stamp} worker {n} stopped"]),
    ("custom/exit 137", platform, "", ["Function instance exited unexpectedly(code 137, message:exit status 137) with start command './bootstrap'.\nLogs:{stamp} worker {n} stopped"]),
    ("custom/health check", platform, "", ["Function instance health check failed on port {port} in {s} seconds.\nLogs:{stamp} worker {n} starting"]),
    ("custom/status 502", platform, "", ["Function failed with status code 502, request {fc}"]),
    ("custom/status 400", platform, "", ["Function failed with status code 400, request {fc}"]),
    ("custom/start", platform, "", ["Failed to start function instance {pod}: exec format error", "Failed to start function instance c-{hex}: exec format error"]),
    ("throttled/instances", platform, "", ["Your request is denied due to exceeding the limit of concurrent instances {n}, RequestId: {uuid}"]),
    ("throttled/rate", platform, "", ["Request was denied due to request throttling. RequestId: {upper}", "Request was denied due to request throttling. RequestId: {fc}"]),
    ("throttled/disk", platform, "", ["Write failed: disk quota of {mb} exceeded at {iso}"]),
    ("platform/argument", platform, "", ["payload size exceeds maximum allowed size ({n} bytes)"]),
    ("platform/access key", platform, "", ["invalid access key ID 'LTAI{hex}'"]),
    ("platform/role", platform, "", ["the service or function doesn't exist or the caller is not authorized to assume role 'acs:ram::{n}:role/fc-{user}', RequestId: {uuid}"]),
    ("platform/image", platform, "", ["Failed to pull image 'registry.cn-hangzhou.aliyuncs.com/a/b:v{n}', request {fc}"]),
    ("python/KeyError/order_id", python, "KeyError", ["'order_id'"]),
    ("python/KeyError/customer_id", python, "KeyError", ["'customer_id'"]),
    ("python/KeyError/by value", python, "KeyError", ["'{order}'"]),
    ("python/KeyError/number", python, "KeyError", ["{n}"]),
    ("python/import/requests", python, "ImportModuleError", ["Unable to import module 'index'\nNo module named 'requests'"]),
    ("python/import/numpy", python, "ImportModuleError", ["Unable to import module 'index'\nNo module named 'numpy'"]),
    ("python/NameError", python, "NameError", ["name 'evnt' is not defined"]),
    ("python/attribute/get", python, "AttributeError", ["'NoneType' object has no attribute 'get'"]),
    ("python/attribute/split", python, "AttributeError", ["'NoneType' object has no attribute 'split'"]),
    ("python/int", python, "ValueError", ["invalid literal for int() with base 10: '{title}'", "invalid literal for int() with base 10: ''"]),
    ("python/date", python, "ValueError", ["time data '{title}' does not match format '%Y-%m-%d'", "time data '{iso}' does not match format '%Y-%m-%d'"]),
    ("python/decode", python, "UnicodeDecodeError", ["'utf-8' codec can't decode byte 0x{hex} in position {n}: invalid start byte"]),
    ("python/index", python, "IndexError", ["list index out of range"]),
    ("python/division", python, "ZeroDivisionError", ["division by zero"]),
    ("python/json/value", python, "JSONDecodeError", ["Expecting value: line {n} column {n_} (char {n__})"]),
    ("python/json/delimiter", python, "JSONDecodeError", ["Expecting ',' delimiter: line {n} column {n_} (char {n__})"]),
    ("python/json/extra", python, "JSONDecodeError", ["Extra data: line {n} column {n_} (char {n__})"]),
    ("python/file/missing", python, "FileNotFoundError", ["[Errno 2] No such file or directory: '{file}'"]),
    ("python/file/forbidden", python, "PermissionError", ["[Errno 13] Permission denied: '{file}'"]),
    ("python/file/full", python, "OSError", ["[Errno 28] No space left on device: '{file}'", "[Errno 28] No space left on device"]),
    ("python/file/read-only", python, "OSError", ["[Errno 30] Read-only file system: '{file}'"]),
    ("python/socket/refused", python, "ConnectionRefusedError", ["[Errno 111] Connection refused"]),
    ("python/socket/reset", python, "ConnectionResetError", ["[Errno 104] Connection reset by peer"]),
    ("python/requests/connect", python, "ConnectTimeout", ["HTTPSConnectionPool(host='{ip}', port={port}): Max retries exceeded with url: /v1/a/{n} (Caused by ConnectTimeoutError(<urllib3.connection.HTTPSConnection object at {ptr}>, 'Connection to {ip} timed out. (connect timeout={s})'))"]),
    ("python/requests/read", python, "ReadTimeout", ["HTTPSConnectionPool(host='api.example.com', port=443): Read timed out. (read timeout={s})"]),
    ("python/requests/404", python, "HTTPError", ["404 Client Error: Not Found for url: {url}"]),
    ("python/requests/429", python, "HTTPError", ["429 Client Error: Too Many Requests for url: {url}"]),
    ("python/requests/503", python, "HTTPError", ["503 Server Error: Service Unavailable for url: {url}"]),
    ("python/urllib/404", python, "HTTPError", ["HTTP Error 404: Not Found"]),
    ("python/urllib/500", python, "HTTPError", ["HTTP Error 500: Internal Server Error"]),
    ("python/mysql/denied", python, "OperationalError", ["(1045, \"Access denied for user '{user}'@'{ip}' (using password: YES)\")"]),
    ("python/mysql/connect", python, "OperationalError", ["(2003, \"Can't connect to MySQL server on '{ip}' (timed out)\")", "(2003, \"Can't connect to MySQL server on 'rm-{hex}.mysql.rds.aliyuncs.com' (timed out)\")"]),
    ("python/mysql/deadlock", python, "OperationalError", ["(1213, 'Deadlock found when trying to get lock; try restarting transaction')"]),
    ("python/mysql/lock wait", python, "OperationalError", ["(1205, 'Lock wait timeout exceeded; try restarting transaction')"]),
    ("python/mysql/duplicate", python, "IntegrityError", ["(1062, \"Duplicate entry '{order}' for key 'orders.PRIMARY'\")"]),
    ("python/postgres/unique", python, "UniqueViolation", ['duplicate key value violates unique constraint "users_email_key"\nDETAIL:  Key (email)=({mail}) already exists.\n', 'duplicate key value violates unique constraint "users_email_key"\nDETAIL:  Key (email)=({title}) already exists.\n']),
    ("python/postgres/table", python, "UndefinedTable", ['relation "orders" does not exist\nLINE 1: SELECT * FROM orders WHERE id = {n}\n                      ^']),
    ("python/redis", python, "ConnectionError", ["Error 111 connecting to {ip}:{port}. Connection refused."]),
    ("python/redis/timeout", python, "TimeoutError", ["Timeout connecting to server {ip}:{port}"]),
    ("python/oss/key", python, "NoSuchKey", ["{{'status': 404, 'x-oss-request-id': '{upper}', 'details': {{'Code': 'NoSuchKey', 'Message': 'The specified key does not exist.', 'RequestId': '{upper}', 'HostId': 'b-{n}.oss-cn-hangzhou.aliyuncs.com', 'Key': '{file}'}}}}"]),
    ("python/oss/denied", python, "AccessDenied", ["{{'status': 403, 'x-oss-request-id': '{upper}', 'details': {{'Code': 'AccessDenied', 'Message': 'You have no right to access this object because of bucket acl.', 'RequestId': '{upper}', 'HostId': 'b-{n}.oss-cn-hangzhou.aliyuncs.com'}}}}"]),
    ("python/oss/expired", python, "ServerError", ["{{'status': 403, 'x-oss-request-id': '{upper}', 'details': {{'Code': 'SecurityTokenExpired', 'Message': 'The security token you provided has expired.', 'SecurityToken': '{b64}'}}}}"]),
    ("python/user/order", python, "OrderError", ["order {order} of {user} was refused by the bank at {stamp}", "order {n} of {user} was refused by the bank at {rfc}"]),
    ("python/user/stock", python, "OrderError", ["order {order}: only {n} of {n_} articles are in stock"]),
    ("python/assert", python, "AssertionError", [""]),
    ("node/type/id", node, "TypeError", ["Cannot read properties of undefined (reading 'id')"]),
    ("node/type/name", node, "TypeError", ["Cannot read properties of undefined (reading 'name')"]),
    ("node/type/function", node, "TypeError", ["callback is not a function"]),
    ("node/reference", node, "ReferenceError", ["event is not defined"]),
    ("node/module/express", node, "Error", ["Cannot find module 'express'\nRequire stack:\n- /code/index.js\n- /var/fc/runtime/nodejs16/bootstrap.js"]),
    ("node/module/sharp", node, "Error", ["Cannot find module 'sharp'\nRequire stack:\n- /code/index.js\n- /var/fc/runtime/nodejs16/bootstrap.js"]),
    ("node/json/token", node, "SyntaxError", ["Unexpected token < in JSON at position {n}"]),
    ("node/json/end", node, "SyntaxError", ["Unexpected end of JSON input"]),
    ("node/net/refused", node, "Error", ["connect ECONNREFUSED {ip}:{port}", "connect ECONNREFUSED {ip6}:{port}"]),
    ("node/net/timeout", node, "Error", ["connect ETIMEDOUT {ip}:{port}"]),
    ("node/net/reset", node, "Error", ["read ECONNRESET"]),
    ("node/net/name", node, "Error", ["getaddrinfo ENOTFOUND db-{n}.example.com", "getaddrinfo ENOTFOUND rm-{hex}.mysql.rds.aliyuncs.com"]),
    ("node/axios/404", node, "AxiosError", ["Request failed with status code 404"]),
    ("node/axios/502", node, "AxiosError", ["Request failed with status code 502"]),
    ("node/axios/timeout", node, "AxiosError", ["timeout of {n}ms exceeded"]),
    ("node/file", node, "Error", ["ENOENT: no such file or directory, open '{file}'"]),
    ("node/memory", node, "Error", ["Reached heap limit Allocation failed - JavaScript heap out of memory <--- Last few GCs ---> [{n}:{ptr}] {n_} ms"]),
    ("node/mongo", node, "MongoServerError", ['E11000 duplicate key error collection: app.users index: email_1 dup key: {{ email: "{mail}" }}']),
    ("node/certificate", node, "Error", ["certificate has expired on {rfc}"]),
    ("node/user/callback", text, "", ['{{"errorMessage":"image {n} of {user} is too large: {mb}"}}']),
    ("java/null/getId", java, "java.lang.NullPointerException", ['Cannot invoke "com.example.Order.getId()" because "order" is null']),
    ("java/null/length", java, "java.lang.NullPointerException", ['Cannot invoke "String.length()" because "name" is null']),
    ("java/null/silent a", lambda t, m: java(t, m, where="com.example.Bill.sum"), "java.lang.NullPointerException", [""]),
    ("java/null/silent b", lambda t, m: java(t, m, where="com.example.Mail.send"), "java.lang.NullPointerException", [""]),
    ("java/cast", java, "java.lang.ClassCastException", ["class java.util.LinkedHashMap cannot be cast to class com.example.Order (java.util.LinkedHashMap is in module java.base of loader 'bootstrap'; com.example.Order is in unnamed module of loader com.example.Loader @{hex})"]),
    ("java/number", java, "java.lang.NumberFormatException", ['For input string: "{title}"', 'For input string: ""']),
    ("java/class", java, "java.lang.ClassNotFoundException", ["com.example.Handler"]),
    ("java/memory/heap", java, "java.lang.OutOfMemoryError", ["Java heap space"]),
    ("java/memory/metaspace", java, "java.lang.OutOfMemoryError", ["Metaspace"]),
    ("java/socket/connect", java, "java.net.SocketTimeoutException", ["connect timed out"]),
    ("java/socket/read", java, "java.net.SocketTimeoutException", ["Read timed out"]),
    ("java/http/503", java, "java.io.IOException", ["Server returned HTTP response code: 503 for URL: {url}"]),
    ("java/http/403", java, "java.io.IOException", ["Server returned HTTP response code: 403 for URL: {url}"]),
    ("java/jdbc/link", java, "com.mysql.cj.jdbc.exceptions.CommunicationsException", ["Communications link failure\n\nThe last packet successfully received from the server was {n} milliseconds ago. The last packet sent successfully to the server was {n_} milliseconds ago."]),
    ("java/pool", java, "java.sql.SQLTransientConnectionException", ["HikariPool-{n} - Connection is not available, request timed out after {n_}ms."]),
    ("java/ora/table", java, "java.sql.SQLException", ["ORA-00942: table or view does not exist"]),
    ("java/ora/space", java, "java.sql.SQLException", ["ORA-01653: unable to extend table APP.ORDERS by {n} in tablespace USERS"]),
    ("java/jackson", java, "com.fasterxml.jackson.core.JsonParseException", ["Unexpected character ('<' (code 60)): expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at [Source: (String)\"{title}\"; line: {n}, column: {n_}]"]),
    ("java/user", java, "com.example.PaymentException", ["payment {uuid} of {mail} was refused"]),
    ("go/index", go, "Error", ["runtime error: index out of range [{n}] with length {n_}"]),
    ("go/nil", go, "Error", ["runtime error: invalid memory address or nil pointer dereference"]),
    ("go/dial/refused", go, "OpError", ["dial tcp {ip}:{port}: connect: connection refused", "dial tcp [{ip6}]:{port}: connect: connection refused"]),
    ("go/dial/timeout", go, "OpError", ["dial tcp {ip}:{port}: i/o timeout"]),
    ("go/dial/name", go, "OpError", ["dial tcp: lookup db-{n}.example.com on {ip}:53: no such host"]),
    ("go/context/deadline", go, "deadlineExceededError", ['Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)']),
    ("go/context/cancelled", go, "errorString", ["context canceled"]),
    ("go/json", go, "SyntaxError", ["invalid character '<' looking for beginning of value"]),
    ("go/json/field", go, "UnmarshalTypeError", ["json: cannot unmarshal string into Go struct field Order.amount of type int"]),
    ("go/user/wrapped", go, "wrapError", ["load user {n}: scan row {n_}: sql: no rows in result set"]),
    ("go/exit", go, "ExitError", ["exit status 1"]),
    ("go/killed", go, "ExitError", ["signal: killed"]),
    ("php/pdo/refused", php, "PDOException", ["SQLSTATE[HY000] [2002] Connection refused"]),
    ("php/pdo/table", php, "PDOException", ["SQLSTATE[42S02]: Base table or view not found: 1146 Table 'app.orders' doesn't exist"]),
    ("php/pdo/duplicate", php, "PDOException", ["SQLSTATE[23000]: Integrity constraint violation: 1062 Duplicate entry '{mail}' for key 'users.email'"]),
    ("php/key/id", php, "ErrorException", ['Undefined array key "id"']),
    ("php/key/total", php, "ErrorException", ['Undefined array key "total"']),
    ("php/function", php, "Error", ["Call to undefined function imagecreate()"]),
    ("php/memory", php, "Error", ["Allowed memory size of {n} bytes exhausted (tried to allocate {n_} bytes)"]),
    ("php/curl/name", php, "RuntimeException", ["cURL error 6: Could not resolve host: db-{n}.example.com"]),
    ("php/curl/timeout", php, "RuntimeException", ["cURL error 28: Operation timed out after {n} milliseconds with {n_} bytes received"]),
    ("dotnet/null/Bill", lambda t, m: dotnet(t, m, where="Example.Bill.Sum()"), "System.NullReferenceException", [""]),
    ("dotnet/null/Mail", lambda t, m: dotnet(t, m, where="Example.Mail.Send(String to)"), "System.NullReferenceException", [""]),
    ("dotnet/key", dotnet, "System.Collections.Generic.KeyNotFoundException", ["The given key 'total' was not present in the dictionary."]),
    ("dotnet/file", dotnet, "System.IO.FileNotFoundException", ["Could not find file '{win}'."]),
    ("dotnet/path", dotnet, "System.IO.IOException", ["The process cannot access the file {win} because it is being used by another process."]),
    ("dotnet/http/timeout", dotnet, "System.Threading.Tasks.TaskCanceledException", ["The request was canceled due to the configured HttpClient.Timeout of {s} seconds elapsing."]),
    ("dotnet/http/500", dotnet, "System.Net.Http.HttpRequestException", ["Response status code does not indicate success: 500 (Internal Server Error)."]),
    ("dotnet/http/401", dotnet, "System.Net.Http.HttpRequestException", ["Response status code does not indicate success: 401 (Unauthorized)."]),
    ("dotnet/sql", dotnet, "Microsoft.Data.SqlClient.SqlException", ["Transaction (Process ID {n}) was deadlocked on lock resources with another process and has been chosen as the deadlock victim. Rerun the transaction."]),
    ("text/nginx 502", text, "", ["<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>"]),
    ("text/nginx 504", text, "", ["<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body>\r\n<center><h1>504 Gateway Time-out</h1></center>\r\n</body>\r\n</html>"]),
    ("text/json error/quota", text, "", ['{{"code":"QuotaExceeded","requestId":"{uuid}","detail":"{n} of {n_} calls are used up"}}']),
    ("text/json error/forbidden", text, "", ['{{"code":"Forbidden.RAM","requestId":"{uuid}","detail":"user {n} may not call this"}}']),
    ("text/xml error/key", text, "", ["<Error><Code>NoSuchKey</Code><RequestId>{upper}</RequestId><HostId>{n}</HostId></Error>"]),
    ("text/xml error/bucket", text, "", ["<Error><Code>NoSuchBucket</Code><RequestId>{upper}</RequestId><HostId>{n}</HostId></Error>"]),
    ("text/traceback/key", text, "", ["Traceback (most recent call last):\n  File \"/code/app.py\", line {line}, in run\n    work(job)\n  File \"/code/app.py\", line {line_}, in work\n    return job['total']\nKeyError: 'total'"]),
    ("text/traceback/type", text, "", ["Traceback (most recent call last):\n  File \"/code/app.py\", line {line}, in run\n    work(job)\n  File \"/code/app.py\", line {line_}, in work\n    return job['total'] + 1\nTypeError: can only concatenate str (not \"int\") to str"]),
    ("text/shell/missing", text, "", ["/code/run.sh: line {line}: ffmpeg: command not found"]),
    ("text/shell/memory", text, "", ["/code/run.sh: line {line}: {n} Killed    ffmpeg -i {file}"]),
    ("text/中文/库存", text, "", ["订单{n}失败：库存不足，需要{n_}件", "订单{n}失败：库存不足，需要 {n_} 件"]),
    ("text/中文/余额", text, "", ["订单{n}失败：余额不足（用户：{mail}）"]),
    ("text/shift", text, "", ["[{clock}] shift {n} has not ended after {ms}"]),
    ("text/token", text, "", ["signature {b64} of request {hex} does not verify", "signature {b64} of request {uuid} does not verify"]),
    ("text/function", text, "", ["{arn} answered nothing within {ms}"]),
    ("text/object", text, "", ["cannot serialise <app.Job object at {ptr}>"]),
    ("text/list", text, "", ["rows [{n}, {n_}, {n__}] have no price", "rows [{n}, {n_}] have no price", "rows [{n}] have no price"]),
    ("text/unquoted", text, "", ["no warehouse called {word} in the plan"]),
]  # fmt: skip

# Failures of the platform: condition, status code.
SILENT: list[tuple[str, str, int]] = [
    ("silent/exhausted", "FunctionResourceExhausted", 200),
    ("silent/server", "FunctionServerError", 200),
    ("silent/server 500", "FunctionServerError", 500),
    ("silent/status 503", "InvocationError", 503),
]


def records() -> Iterator[dict]:
    for name, report, type_, forms in CLASSES:
        for member in range(MEMBERS):
            payload = report(type_, fill(forms[member % len(forms)]))
            body = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
            yield {"class": name, "condition": "UnhandledInvocationError", "status": 200, "payload": body}
    for name, condition, status in SILENT:
        for _ in range(3):
            yield {"class": name, "condition": condition, "status": status, "payload": ""}


if __name__ == "__main__":
    with (Path(__file__).parent / "corpus.jsonl").open("w", encoding="utf-8") as out:
        for record in records():
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
