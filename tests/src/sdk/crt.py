# What any application on the AWS CRT does (the C++ SDK, Mountpoint for S3), and nothing else.
import json

import awscrt.auth
import awscrt.exceptions
import awscrt.io

try:
    provider = awscrt.auth.AwsCredentialsProvider.new_default_chain(
        awscrt.io.ClientBootstrap.get_or_create_static_default()
    )
    credentials = provider.get_credentials().result()
    answer = {"session_token": credentials.session_token}
except awscrt.exceptions.AwsCrtError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
