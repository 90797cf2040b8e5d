"""What requests and answers look like: marshmallow schemas, for checking requests and for the OpenAPI document."""
