# What any application with boto3 does, and nothing else.
import json

import boto3
import botocore.exceptions

try:
    credentials = boto3.Session().get_credentials()
    answer = {"session_token": credentials.token}
except botocore.exceptions.BotoCoreError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
