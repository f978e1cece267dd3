# moto's server, as a cluster's account sees IAM, STS and S3. It ends with its input.
import json
import sys

import boto3
from moto import settings
from moto.iam.access_control import IAMPolicyStatement
from moto.server import ThreadedMotoServer

# The user that stands for the service that assumes pods' roles.
SERVICE = "pods.eks.amazonaws.com"

address, region = sys.argv[1:]
server = ThreadedMotoServer(address, port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()

trusts_account = IAMPolicyStatement._check_principal


def trusts(statement, principal):
    """Whether a trust policy names the principal. moto itself knows principals of AWS only."""
    expected = statement._statement.get("Principal") or {}
    services = expected.get("Service", [])
    services = [services] if isinstance(services, str) else services
    if principal.endswith(":user/" + SERVICE) and SERVICE in services:
        # The session has tags, which take an action of their own.
        return statement._check_element_matches("Action", "sts:TagSession")
    return "AWS" in expected and trusts_account(statement, principal)


IAMPolicyStatement._check_principal = trusts

iam = boto3.client(
    "iam",
    region_name=region,
    endpoint_url=f"http://{address}:{port}",
    aws_access_key_id="anybody",
    aws_secret_access_key="anything",
)


def user(name, action):
    """Makes a user who may do this, and returns an access key."""
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(
        UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy)
    )
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return [key["AccessKeyId"], key["SecretAccessKey"]]


operator = user("operator", "*")
service = user(SERVICE, ["sts:AssumeRole", "sts:TagSession"])
# From here on each call needs a signature, and a policy that allows it.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
print(json.dumps({"port": port, "operator": operator, "service": service}), flush=True)
sys.stdin.read()
