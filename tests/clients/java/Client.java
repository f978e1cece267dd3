import software.amazon.awssdk.auth.credentials.AwsSessionCredentials;
import software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider;
import software.amazon.awssdk.core.exception.SdkClientException;

/** What any application with the AWS SDK for Java does, and nothing else. */
public final class Client {
  public static void main(String[] arguments) {
    try (DefaultCredentialsProvider chain = DefaultCredentialsProvider.create()) {
      AwsSessionCredentials credentials = (AwsSessionCredentials) chain.resolveCredentials();
      print("session_token", credentials.sessionToken());
    } catch (SdkClientException error) {
      print("error", error.getMessage());
    }
  }

  private static void print(String name, String value) {
    String quoted = value.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ");
    System.out.printf("{\"%s\": \"%s\"}%n", name, quoted);
  }
}
