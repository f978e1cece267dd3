# An application that shows a bucket's files on a web page. It knows nothing of podcreds.
import http.server
import os

import boto3
from botocore.exceptions import BotoCoreError, ClientError


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, text = 200, self.files()
        except ClientError as error:  # what AWS refuses
            status, text = 403, str(error)
        except BotoCoreError as error:  # what comes before that, such as credentials
            status, text = 503, str(error)
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def files(self):
        # A session keeps its credentials for hours. A new one asks for them.
        session = boto3.Session()
        identity = session.client("sts").get_caller_identity()
        files = session.client("s3").list_objects_v2(Bucket=os.environ["BUCKET"])
        names = [file["Key"] for file in files.get("Contents", [])]
        return "\n".join([identity["Arn"], *names])

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("", 8080), Page)
print('"serving"', flush=True)
server.serve_forever()
